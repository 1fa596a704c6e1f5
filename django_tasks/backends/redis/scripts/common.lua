-- Read into every script, before its own text.
--
-- Every queue has one hash tag, so each script works on one slot of a cluster; a key "<queue>" is e.g. djt:{default}:
--   <queue>:m       HASH  id -> entry: everything that is needed to run the task
--   <queue>:p       ZSET  the priorities in use, highest first (score: the priority negated)
--   <queue>:r:<p>   ZSET  what waits with priority p, by the moment when it is due; what is due comes first
--   <queue>:l:<w>   HASH  id -> lease, what worker w holds
--   <queue>:h       SET   the workers that hold something
--   <queue>:k       LIST  a wake token, at most one
--   <queue>:s       ZSET  ids that must not start unless the database agrees, by the moment until which that is so
--   <queue>:a       SET   ids whose end somebody waits for
--   <queue>:g       SET   ids that were taken out for good, while their rows are about to be released
--
-- An id is the 16 bytes of its UUID, a moment is seconds since 1970 by the server's clock.
-- An entry is "<published> <flags> <attempt> <priority> <length of name> <name><the rest>", a lease is
-- "<slot> <attempt> <priority> <due> <flags>". Flags: d: there is a row in the database, v: there is none, t: the row is
-- asked before each start, s: a sweeper put it here, and the row is asked, too, r: it waits for its
-- next attempt.

-- Before version 7 a server may replicate the script instead of what it did; it must not, as scripts read the clock.
if redis.replicate_commands then redis.replicate_commands() end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- A number as text, without loss.
local function exact(number) return string.format('%.17g', number) end

-- published, flags, attempt, priority, name of an entry.
local function read(entry)
  local _, till, published, flags, attempt, priority, length =
    string.find(entry, '^(%S+) (%S+) (%d+) (%-?%d+) (%d+) ')
  return published, flags, attempt, priority, string.sub(entry, till + 1, till + tonumber(length))
end

-- slot, attempt, priority, due, flags of a lease.
local function terms(lease)
  local _, _, slot, attempt, priority, due, flags = string.find(lease, '^(%S+) (%S+) (%S+) (%S+) (%S+)')
  return slot, attempt, priority, due, flags
end

local function wait(queue, id, priority, due)
  redis.call('ZADD', queue .. ':r:' .. priority, due, id)
  redis.call('ZADD', queue .. ':p', -priority, priority)
end

-- Let a task wait, unless its id is there already; tell whether it was not. due is a moment, or "+seconds" from now.
local function put(queue, id, priority, due, entry)
  if string.sub(due, 1, 1) == '+' then due = exact(now + tonumber(string.sub(due, 2))) end
  if redis.call('HSETNX', queue .. ':m', id, exact(now) .. ' ' .. entry) == 0 then return false end
  wait(queue, id, priority, due)
  return true
end

-- Must an id not start unless the database agrees?
local function is_stopped(queue, id)
  local till = redis.call('ZSCORE', queue .. ':s', id)
  return till and tonumber(till) > now
end

-- Let ids not start unasked for a while: whoever sent them may still be about to publish them. Of these the oldest go
-- when there are too many.
local SWEPT_FOR, SWEPT_MOST, STOPPED_FOR = 600, 100000, 7 * 86400
local function remember(queue, ids)
  local stopped, words = queue .. ':s', {}
  for _, id in ipairs(ids) do
    words[#words + 1] = exact(now + SWEPT_FOR)
    words[#words + 1] = id
  end
  redis.call('ZREMRANGEBYSCORE', stopped, '-inf', exact(now))
  redis.call('ZADD', stopped, 'GT', unpack(words))
  local more = redis.call('ZCOUNT', stopped, '-inf', exact(now + SWEPT_FOR)) - SWEPT_MOST
  if more > 0 then redis.call('ZREMRANGEBYRANK', stopped, 0, more - 1) end
  redis.call('EXPIRE', stopped, STOPPED_FOR)
end

-- One token is enough: who takes it looks for all there is, and hands another one on if that is much.
local function wake(queue)
  if redis.call('LLEN', queue .. ':k') == 0 then redis.call('RPUSH', queue .. ':k', '1') end
end

-- Is something due?
local function is_due(queue)
  for _, priority in ipairs(redis.call('ZRANGE', queue .. ':p', 0, -1)) do
    local ready = queue .. ':r:' .. priority
    if #redis.call('ZRANGE', ready, '-inf', exact(now), 'BYSCORE', 'LIMIT', 0, 1) > 0 then return true end
  end
  return false
end

-- The worker that holds an id, and its lease.
local function holder(queue, id)
  for _, worker in ipairs(redis.call('SMEMBERS', queue .. ':h')) do
    local lease = redis.call('HGET', queue .. ':l:' .. worker, id)
    if lease then return worker, lease end
  end
end

-- Note that a queue is in use; tell workers of one that is new to them.
local function name(names, new, queue)
  local used = redis.call('ZSCORE', names, queue)
  if not used or now - used > 60 then redis.call('ZADD', names, exact(now), queue) end
  if not used and redis.call('LLEN', new) == 0 then redis.call('RPUSH', new, '1') end
end

-- What tells one life of this data from the next; a new mark is set if there is none, with the moment.
local function life(key, new)
  local mark = redis.call('GET', key)
  if not mark then
    mark = new .. ' ' .. exact(now)
    redis.call('SET', key, mark)
  end
  return string.match(mark, '^%S*')
end

-- Take or keep the turn to sweep, for so many seconds; tell whether it was not another one's.
local function turn(key, who, seconds)
  local whose = redis.call('GET', key)
  if whose and whose ~= who then return false end
  redis.call('SET', key, who, 'EX', seconds)
  return true
end

-- What tells one start of the server from the next.
local function start() return string.match(redis.call('INFO', 'server'), 'run_id:%w+') or '' end

-- End the leases of workers that have run out, so that from here on their renewal fails; their workers.
local function expire(workers)
  local lost = redis.call('ZRANGE', workers, '-inf', exact(now), 'BYSCORE')
  for _, worker in ipairs(lost) do redis.call('ZREM', workers, worker) end
  return lost
end

-- Pairs of queue (its number) and worker that holds something there without a lease.
local function orphans(workers, queues)
  local found = {}
  for number, queue in ipairs(queues) do
    for _, worker in ipairs(redis.call('SMEMBERS', queue .. ':h')) do
      if not redis.call('ZSCORE', workers, worker) then
        found[#found + 1] = number
        found[#found + 1] = worker
      end
    end
  end
  return found
end

-- Take an id out that nobody holds; false if somebody does, nil if it is not there.
local function remove(queue, id)
  local entry = redis.call('HGET', queue .. ':m', id)
  if not entry then return nil end
  local _, _, _, priority = read(entry)
  if redis.call('ZREM', queue .. ':r:' .. priority, id) == 0 and holder(queue, id) then return false end
  redis.call('HDEL', queue .. ':m', id)
  return true
end
