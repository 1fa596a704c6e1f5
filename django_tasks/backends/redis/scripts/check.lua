-- Look which of these leases a worker still has.
--
-- KEYS: queues. ARGV: worker; then for each queue: how many ids, then for each: id, attempt.
-- Returns for each queue: the ids that it has lost; the ids of what has been given a row.
local found, at = {}, 2
for number, queue in ipairs(KEYS) do
  local lost, kept = {}, {}
  local count = tonumber(ARGV[at])
  for first = 1, count, 500 do
    local ids, attempts = {}, {}
    for i = first, math.min(count, first + 499) do
      ids[#ids + 1] = ARGV[at + 2 * i - 1]
      attempts[#attempts + 1] = ARGV[at + 2 * i]
    end
    for i, lease in ipairs(redis.call('HMGET', queue .. ':l:' .. ARGV[1], unpack(ids))) do
      local attempt, flags
      if lease then attempt, flags = string.match(lease, '^%S+ (%S+) %S+ %S+ (%S+)') end
      if attempt ~= attempts[i] then
        lost[#lost + 1] = ids[i]
      elseif string.find(flags, 'd') then
        kept[#kept + 1] = ids[i]
      end
    end
  end
  at = at + 1 + 2 * count
  found[number] = {lost, kept}
end
return found
