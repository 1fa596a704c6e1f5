-- Take ids out of a queue that nobody holds, and remember that this was done, as their rows are to be released then.
--
-- KEYS: the queue. ARGV: ids.
-- Returns the ids that were removed.
local queue = KEYS[1]
local given = {}
for _, id in ipairs(ARGV) do
  if remove(queue, id) then given[#given + 1] = id end
end
if #given > 0 then
  redis.call('SADD', queue .. ':g', unpack(given))
  redis.call('EXPIRE', queue .. ':g', STOPPED_FOR)
end
return given
