-- Let tasks wait in a queue. An id that is there already is left as it is, so sending twice stores once.
--
-- KEYS: the queue; then, where all keys are on one server, the set of all queues, and a wake token for a new one.
-- ARGV: the queue's name; the mode; then for each task: id, priority, due, entry without its first word.
--   due is a moment, or "+seconds" from now. Modes:
--   new      what the sender publishes; an id that must not start is left out
--   sweep    what the database has just confirmed to be unfinished; nothing holds it back
--   renew    the same, and it takes the place of what waits under its id
-- Returns how many were put there.
local queue, mode = KEYS[1], ARGV[2]
local stops = redis.call('EXISTS', queue .. ':s') == 1
local count = 0
for i = 3, #ARGV, 4 do
  local id, priority, due, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2], exact(now) .. ' ' .. ARGV[i + 3]
  if string.sub(due, 1, 1) == '+' then due = exact(now + tonumber(string.sub(due, 2))) end
  local stopped = false
  if stops and mode == 'new' then
    local till = redis.call('ZSCORE', queue .. ':s', id)
    stopped = till and tonumber(till) > now
  elseif stops then
    redis.call('ZREM', queue .. ':s', id)
  end
  if not stopped then
    if mode == 'renew' then remove(queue, id) end
    if redis.call('HSETNX', queue .. ':m', id, entry) == 1 then
      wait(queue, id, priority, due)
      count = count + 1
    end
  end
end
if count > 0 then
  if KEYS[2] and redis.call('SADD', KEYS[2], ARGV[1]) == 1 and redis.call('LLEN', KEYS[3]) == 0 then
    redis.call('RPUSH', KEYS[3], '1')
  end
  wake(queue)
end
return count
