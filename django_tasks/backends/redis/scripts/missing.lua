-- Tell which ids are not in a queue, waiting or held.
--
-- KEYS: the queue. ARGV: ids.
-- Returns those.
local found = {}
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1] .. ':m', id) == 0 then found[#found + 1] = id end
end
return found
