-- Begin or renew a worker's lease.
--
-- KEYS: the leases, a ZSET of workers by the moment when each runs out; the mark that tells one life of this data from
--   the next.
-- ARGV: worker, seconds, "begin" or "renew", the mark that the worker knows, a mark to set if there is none.
-- Returns the mark, or nothing if the lease was lost. It was not lost if all data was: then it begins again.
local mark = redis.call('GET', KEYS[2])
if not mark then
  mark = ARGV[5]
  redis.call('SET', KEYS[2], mark)
end
if ARGV[3] == 'renew' and mark == ARGV[4] and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return false end
redis.call('ZADD', KEYS[1], exact(now + tonumber(ARGV[2])), ARGV[1])
return mark
