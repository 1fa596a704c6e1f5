-- Forget what is finished, let wait what may run because of that, then lease what is due, best first: in one step, so no
-- crash can fall in between, and a lease is written down before the task leaves its queue.
--
-- KEYS: the queues in which something ended, then those to take from, in order; if something is to wait, those of name.lua;
--   if the worker must have a lease, the first of lease.lua.
-- ARGV: worker, slot, limit, 1 if the worker must have a lease, how many queues of the first kind; for each of those how
--   many ids, then for each id: id, attempt, 1 if the database says that it is done for good (else only this attempt's
--   lease counts), v if it is believed to have no row, w if that is all there is to be said of it: it ends if this
--   attempt has its lease and no row; how many are to wait, then for each of them: which of the queues
--   to take from, its name, and id, priority, due, entry as for publish.lua; then the names of tasks that are not to be
--   taken.
-- Returns the moment; how many ids of two kinds follow, and those: what was believed to have no row, and has one, and
--   of w what did not end; then for each lease: which of the queues, id, entry, due, 1 if it must not start unasked.
local worker, slot, limit, ended = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
-- Arguments on the stack are few, and what waits at the head with an unknown name may be many.
local MANY, SCAN = 500, 20000
local at = 6
local kept, left = {}, {}

for number = 1, ended do
  local queue, count = KEYS[number], tonumber(ARGV[at])
  local awaited = redis.call('EXISTS', queue .. ':a') == 1
  at = at + 1
  for first = 1, count, MANY do
    local ids, proofs = {}, {}
    for i = first, math.min(count, first + MANY - 1) do
      ids[#ids + 1] = ARGV[at]
      proofs[#proofs + 1] = {ARGV[at + 1], ARGV[at + 2]}
      at = at + 3
    end
    local leases = redis.call('HMGET', queue .. ':l:' .. worker, unpack(ids))
    local mine, swept = {}, {}
    for i, id in ipairs(ids) do
      local _, attempt, flags
      if leases[i] then _, attempt, _, _, flags = terms(leases[i]) end
      local word = proofs[i][2]
      if word == 'w' and (attempt ~= proofs[i][1] or string.find(flags, 'd')) then
        left[#left + 1] = id
        left[id] = true
      elseif attempt == proofs[i][1] then
        mine[#mine + 1] = id
        if word == 'v' and string.find(flags, 'd') then kept[#kept + 1] = id end
        if string.find(flags, 's') then swept[#swept + 1] = id end
      elseif word == '1' then
        remove(queue, id)
      end
    end
    if #swept > 0 then remember(queue, swept) end
    if #mine > 0 then
      redis.call('HDEL', queue .. ':l:' .. worker, unpack(mine))
      redis.call('HDEL', queue .. ':m', unpack(mine))
    end
    if awaited then
      for i, told in ipairs(redis.call('SMISMEMBER', queue .. ':a', unpack(ids))) do
        if told == 1 and not left[ids[i]] then
          redis.call('SREM', queue .. ':a', ids[i])
          redis.call('PUBLISH', queue .. ':a', ids[i])
        end
      end
    end
  end
end

local released, first = tonumber(ARGV[at]), at + 1
at = first + 6 * released
for i = first, at - 1, 6 do
  local queue, id = KEYS[ended + ARGV[i]], ARGV[i + 2]
  if not is_stopped(queue, id) and put(queue, id, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]) then
    name(KEYS[#KEYS - 1], KEYS[#KEYS], ARGV[i + 1])
  end
end

local unknown
if #ARGV >= at then
  unknown = {}
  for i = at, #ARGV do unknown[ARGV[i]] = true end
end

local found = {exact(now), #kept, #left}
for _, id in ipairs(kept) do found[#found + 1] = id end
for _, id in ipairs(left) do found[#found + 1] = id end
local taken = 0

local last = #KEYS - (released > 0 and 2 or 0)
if ARGV[4] == '1' then
  -- Who waited for this may be cut off: then what it was told of is for somebody else.
  local till = redis.call('ZSCORE', KEYS[last], worker)
  last = last - 1
  if not till or tonumber(till) < now then
    for number = ended + 1, last do
      if is_due(KEYS[number]) then wake(KEYS[number]) end
    end
    return found
  end
end

local function take(number, queue)
  local before = taken
  local stops = redis.call('EXISTS', queue .. ':s') == 1
  if stops then redis.call('ZREMRANGEBYSCORE', queue .. ':s', '-inf', exact(now)) end
  for _, priority in ipairs(redis.call('ZRANGE', queue .. ':p', 0, -1)) do
    local ready = queue .. ':r:' .. priority
    local from = 0
    while taken < limit and from < SCAN do
      local wanted = math.min(limit - taken, MANY)
      local due = redis.call('ZRANGE', ready, '-inf', exact(now), 'BYSCORE', 'LIMIT', from, wanted, 'WITHSCORES')
      if #due == 0 then
        if from == 0 and redis.call('EXISTS', ready) == 0 then redis.call('ZREM', queue .. ':p', priority) end
        break
      end
      local ids, held, leases, gone = {}, {}, {}, {}
      for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
      local entries = redis.call('HMGET', queue .. ':m', unpack(ids))
      if stops then held = redis.call('ZMSCORE', queue .. ':s', unpack(ids)) end
      local skipped = 0
      for i, id in ipairs(ids) do
        local entry = entries[i]
        if not entry then
          gone[#gone + 1] = id
        else
          local _, flags, attempt, _, name = read(entry)
          if unknown and unknown[name] then
            skipped = skipped + 1
          else
            gone[#gone + 1] = id
            leases[#leases + 1] = id
            leases[#leases + 1] =
              slot .. ' ' .. (tonumber(attempt) + 1) .. ' ' .. priority .. ' ' .. due[2 * i] .. ' ' .. flags
            found[#found + 1] = number
            found[#found + 1] = id
            found[#found + 1] = entry
            found[#found + 1] = due[2 * i]
            found[#found + 1] = held[i] and tonumber(held[i]) > now and 1 or 0
            taken = taken + 1
          end
        end
      end
      if #leases > 0 then redis.call('HSET', queue .. ':l:' .. worker, unpack(leases)) end
      if skipped == 0 and from == 0 then
        redis.call('ZREMRANGEBYRANK', ready, 0, #ids - 1)
      elseif #gone > 0 then
        redis.call('ZREM', ready, unpack(gone))
      end
      from = from + skipped
      if #ids < wanted then break end
    end
    if taken >= limit then
      -- Others may be idle, and there is more.
      if #redis.call('ZRANGE', ready, '-inf', exact(now), 'BYSCORE', 'LIMIT', 0, 1) > 0 then wake(queue) end
      break
    end
  end
  if taken > before then redis.call('SADD', queue .. ':h', worker) end
end

for number = ended + 1, last do
  if taken < limit then take(number - ended, KEYS[number]) end
end
for i = first, first + 6 * released - 1, 6 do
  local queue = KEYS[ended + ARGV[i]]
  if redis.call('ZSCORE', queue .. ':r:' .. ARGV[i + 3], ARGV[i + 2]) then wake(queue) end  -- for somebody else
end
return found
