-- Begin a worker's lease.
--
-- KEYS: the leases, a ZSET of workers by the moment when each runs out; the mark that tells one life of this data from
--   the next.
-- ARGV: worker, seconds, a mark to set if there is none.
-- Returns the mark.
redis.call('ZADD', KEYS[1], exact(now + tonumber(ARGV[2])), ARGV[1])
return life(KEYS[2], ARGV[3])
