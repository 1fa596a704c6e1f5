-- Take out what waits in a queue, up to a thousand at a time.
--
-- KEYS: the queue.
-- Returns id and flags of each.
local queue = KEYS[1]
local found = {}
for _, priority in ipairs(redis.call('ZRANGE', queue .. ':p', 0, -1)) do
  local ready = queue .. ':r:' .. priority
  local ids = redis.call('ZRANGE', ready, 0, 999 - #found / 2)
  for _, id in ipairs(ids) do
    local entry = redis.call('HGET', queue .. ':m', id)
    local flags = 'd'
    if entry then _, flags = read(entry) end
    found[#found + 1] = id
    found[#found + 1] = flags
  end
  if #ids > 0 then
    redis.call('ZREM', ready, unpack(ids))
    redis.call('HDEL', queue .. ':m', unpack(ids))
  end
  if #found >= 2000 then break end
end
return found
