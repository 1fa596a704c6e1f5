-- Take ids out of a queue that nobody holds.
--
-- KEYS: the queue. ARGV: ids.
-- Returns for each id: 1 if it was removed, 2 if somebody holds it, 0 if it was not there.
local queue = KEYS[1]
local found = {}
for _, id in ipairs(ARGV) do
  local removed = remove(queue, id)
  found[#found + 1] = removed and 1 or removed == false and 2 or 0
  if removed then
    redis.call('ZREM', queue .. ':s', id)
  elseif removed == nil then
    -- Whoever sent it may still be about to publish it.
    redis.call('ZADD', queue .. ':s', 'XX', 'LT', exact(now + 3600), id)
  end
end
return found
