-- End the leases that have run out; from here on their renewal fails.
--
-- KEYS: the leases. Returns the workers.
local lost = redis.call('ZRANGE', KEYS[1], '-inf', exact(now), 'BYSCORE')
for _, worker in ipairs(lost) do redis.call('ZREM', KEYS[1], worker) end
return lost
