-- Look which of these leases a worker still has.
--
-- KEYS: the queue. ARGV: worker; then for each: id, attempt.
-- Returns the ids that it has lost; an empty text; the ids of what has been given a row.
local leases = KEYS[1] .. ':l:' .. ARGV[1]
local lost, kept = {}, {}
for first = 2, #ARGV, 1000 do
  local ids = {}
  for i = first, math.min(#ARGV, first + 999), 2 do ids[#ids + 1] = ARGV[i] end
  for i, lease in ipairs(redis.call('HMGET', leases, unpack(ids))) do
    local attempt, flags
    if lease then attempt, flags = string.match(lease, '^%S+ (%S+) %S+ %S+ (%S+)') end
    if attempt ~= ARGV[first + 2 * i - 1] then
      lost[#lost + 1] = ids[i]
    elseif string.find(flags, 'd') then
      kept[#kept + 1] = ids[i]
    end
  end
end
lost[#lost + 1] = ''
for _, id in ipairs(kept) do lost[#lost + 1] = id end
return lost
