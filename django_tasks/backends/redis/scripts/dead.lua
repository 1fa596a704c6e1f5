-- End the leases that have run out, and look who holds something without one.
--
-- KEYS: the leases of workers; queues. Returns whose leases ran out; then pairs of queue (its number) and worker.
local lost, queues = expire(KEYS[1]), {}
for i = 2, #KEYS do queues[i - 1] = KEYS[i] end
return {lost, orphans(KEYS[1], queues)}
