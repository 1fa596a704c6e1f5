-- Look at the head of each priority: what waits there is in order of due time.
--
-- KEYS: queues; or the names of all queues, where all keys are on one server. ARGV: then what stands before and behind the
-- name in the key of a queue.
-- Returns for each queue: its name, if it was not given; in how many seconds its first task is due (not above 0: now),
-- and the first that is due later, each empty if there is none.
local found = {}
local names, queues = {}, KEYS
if ARGV[1] then
  names, queues = redis.call('ZRANGE', KEYS[1], 0, -1), {}
  for i, name in ipairs(names) do queues[i] = ARGV[1] .. name .. ARGV[2] end
end
for i, queue in ipairs(queues) do
  local first, later
  for _, priority in ipairs(redis.call('ZRANGE', queue .. ':p', 0, -1)) do
    local head = redis.call('ZRANGE', queue .. ':r:' .. priority, 0, 0, 'WITHSCORES')
    if #head > 0 then
      local wait = tonumber(head[2]) - now
      if not first or wait < first then first = wait end
      if wait > 0 and (not later or wait < later) then later = wait end
    else
      redis.call('ZREM', queue .. ':p', priority)
    end
  end
  found[#found + 1] = names[i] or ''
  found[#found + 1] = first and exact(first) or ''
  found[#found + 1] = later and exact(later) or ''
end
return found
