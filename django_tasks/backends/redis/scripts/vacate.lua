-- Tidy up a queue that is not used any more.
--
-- KEYS: the queue.
-- Returns 1 if nothing waits there and nobody holds anything, else 0.
local queue = KEYS[1]
for _, worker in ipairs(redis.call('SMEMBERS', queue .. ':h')) do
  if redis.call('EXISTS', queue .. ':l:' .. worker) == 0 then redis.call('SREM', queue .. ':h', worker) end
end
if redis.call('EXISTS', queue .. ':h', queue .. ':m') > 0 then return 0 end
for _, priority in ipairs(redis.call('ZRANGE', queue .. ':p', 0, -1)) do
  redis.call('DEL', queue .. ':r:' .. priority)
end
redis.call('DEL', queue .. ':p', queue .. ':k')
return 1
