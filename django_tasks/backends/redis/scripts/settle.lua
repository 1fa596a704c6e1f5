-- End leases without an end of their tasks: each goes back to its queue, or leaves it. Only the attempt that is named can
-- lose its lease, so of many who take one back only one does.
--
-- KEYS: the queue.
-- ARGV: worker; then for each lease: id, attempt, verb, priority, due, entry without its first word. Verbs:
--   drop   it leaves the queue
--   back   it waits again as before, its attempt counted
--   put    it waits as priority, due and entry say; due is a moment, "+seconds" from now, or empty: as before
-- An entry with the flag v, which is all of it for drop and back, is of a task that is believed to have no row: if it has
-- been given one, it keeps its lease.
-- Returns the ids whose lease was ended.
local queue, worker = KEYS[1], ARGV[1]
local leases = queue .. ':l:' .. worker
local done, swept, waiting = {}, {}, false
for i = 2, #ARGV, 6 do
  local id, attempt, verb, priority, due, entry =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local lease = redis.call('HGET', leases, id)
  local _, held, old_priority, old_due, flags
  if lease then _, held, old_priority, old_due, flags = terms(lease) end
  if held == attempt and not (string.find(entry, '^v') and string.find(flags, 'd')) then
    local old = redis.call('HGET', queue .. ':m', id)
    if verb == 'back' and old then
      priority, due = old_priority, old_due
      local _, kept = read(old)
      local _, till = string.find(old, '^%S+ %S+ %d+ %-?%d+ ')
      entry = kept .. ' ' .. attempt .. ' ' .. priority .. ' ' .. string.sub(old, till + 1)
    end
    if verb ~= 'drop' and old then
      if due == '' then
        due = old_due
      elseif string.sub(due, 1, 1) == '+' then
        due = exact(now + tonumber(string.sub(due, 2)))
      end
      local published = read(old)
      -- What a row says is counted from now; who has no row keeps its time.
      if verb == 'put' and string.find(entry, '^%a*d') then published = exact(now) end
      redis.call('HSET', queue .. ':m', id, published .. ' ' .. entry)
      wait(queue, id, priority, due)
      waiting = true
    else
      redis.call('HDEL', queue .. ':m', id)
    end
    redis.call('HDEL', leases, id)
    if verb ~= 'back' and string.find(flags, 's') then swept[#swept + 1] = id end
    done[#done + 1] = id
  end
end
if #swept > 0 then remember(queue, swept) end
if waiting then wake(queue) end
return done
