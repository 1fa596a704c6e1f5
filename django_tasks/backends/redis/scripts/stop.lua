-- Let ids not start unless the database agrees, as long as its transaction may be open: what was not published yet for
-- an hour, else until it is removed.
--
-- KEYS: the queue. ARGV: ids.
-- Returns for each id: 0 if it is not here, 1 if it waits, else the worker that holds it and its lease.
local queue = KEYS[1]
local found = {}
redis.call('ZREMRANGEBYSCORE', queue .. ':s', '-inf', exact(now))
for _, id in ipairs(ARGV) do
  local known = redis.call('HEXISTS', queue .. ':m', id) == 1
  redis.call('ZADD', queue .. ':s', exact(now + (known and STOPPED_FOR or 3600)), id)
  local worker, lease
  if known then worker, lease = holder(queue, id) end
  found[#found + 1] = worker and worker .. ' ' .. lease or known and '1' or '0'
end
redis.call('EXPIRE', queue .. ':s', STOPPED_FOR)
return found
