-- End the leases that have run out, so that from here on their renewal fails; and look who holds something without one.
--
-- KEYS: the leases of workers; queues. Returns whose leases ran out; an empty text; then pairs of queue (its number) and
-- worker.
local found = redis.call('ZRANGE', KEYS[1], '-inf', exact(now), 'BYSCORE')
for _, worker in ipairs(found) do redis.call('ZREM', KEYS[1], worker) end
found[#found + 1] = ''
for i = 2, #KEYS do
  for _, worker in ipairs(redis.call('SMEMBERS', KEYS[i] .. ':h')) do
    if not redis.call('ZSCORE', KEYS[1], worker) then
      found[#found + 1] = i - 1
      found[#found + 1] = worker
    end
  end
end
return found
