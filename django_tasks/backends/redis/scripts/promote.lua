-- Note that tasks which had no row have one now.
--
-- KEYS: the queue. ARGV: worker; then for each: id, attempt.
-- Returns the ids whose lease was still the one.
local queue = KEYS[1]
local leases = queue .. ':l:' .. ARGV[1]
local done = {}
for i = 2, #ARGV, 2 do
  local id, lease = ARGV[i], redis.call('HGET', leases, ARGV[i])
  if lease then
    local slot, attempt, priority, due, flags = terms(lease)
    if attempt == ARGV[i + 1] then
      flags = string.gsub(flags, 'v', 'd')
      redis.call('HSET', leases, id, slot .. ' ' .. attempt .. ' ' .. priority .. ' ' .. due .. ' ' .. flags)
      local entry = redis.call('HGET', queue .. ':m', id)
      if entry then redis.call('HSET', queue .. ':m', id, (string.gsub(entry, '^(%S+) v', '%1 d', 1))) end
      done[#done + 1] = id
    end
  end
end
return done
