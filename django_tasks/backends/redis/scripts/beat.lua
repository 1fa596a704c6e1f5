-- Renew a worker's lease. What every worker looks at now and then goes along, so that an idle one asks for nothing else:
-- whose turn it is to sweep, and who holds something without a lease.
--
-- KEYS: those of lease.lua; whose turn it is; the names of all queues.
-- ARGV: worker, seconds, the mark that the worker knows, a mark to set if there is none; who it is as a sweeper, seconds
--   of a turn; then, where all keys are on one server, what stands before and behind the name in the key of a queue.
-- Returns the mark, empty if the lease was lost (it was not if all data was: then it begins again); what turn.lua
-- returns, or an empty text; whose leases ran out; the names of all queues; what dead.lua tells of them, in a cluster
-- who has a lease.
local mark = life(KEYS[2], ARGV[4])
local kept = mark
if mark == ARGV[3] and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  kept = ''
else
  redis.call('ZADD', KEYS[1], exact(now + tonumber(ARGV[2])), ARGV[1])
end
local sweeps = turn(KEYS[3], ARGV[5], ARGV[6]) and mark .. start() or ''
local names, lost = redis.call('ZRANGE', KEYS[4], 0, -1), expire(KEYS[1])
if not ARGV[7] then return {kept, sweeps, lost, names, redis.call('ZRANGE', KEYS[1], 0, -1)} end
local queues = {}
for i, queue in ipairs(names) do queues[i] = ARGV[7] .. queue .. ARGV[8] end
return {kept, sweeps, lost, names, orphans(KEYS[1], queues)}
