-- Forget the name of a queue that nobody has sent to for so many seconds.
--
-- KEYS: all queues. ARGV: the name, seconds.
-- Returns 1 if it was forgotten, else 0.
local used = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not used or now - used < tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
