-- Let tasks wait in a queue. An id that is there already is left as it is, so sending twice stores once.
--
-- KEYS: the queue; then, where all keys are on one server, those of name.lua.
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
  local id = ARGV[i]
  if stops and mode ~= 'new' then redis.call('ZREM', queue .. ':s', id) end
  if not (stops and mode == 'new' and is_stopped(queue, id)) then
    if mode == 'renew' then remove(queue, id) end
    if put(queue, id, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) then count = count + 1 end
  end
end
if count > 0 then
  if KEYS[2] then name(KEYS[2], KEYS[3], ARGV[1]) end
  wake(queue)
end
return count
