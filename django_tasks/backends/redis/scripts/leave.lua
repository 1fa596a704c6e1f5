-- Forget a worker that holds nothing in this queue any more.
--
-- KEYS: the queue. ARGV: worker.
if redis.call('EXISTS', KEYS[1] .. ':l:' .. ARGV[1]) == 0 then redis.call('SREM', KEYS[1] .. ':h', ARGV[1]) end
