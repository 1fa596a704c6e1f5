-- Let one worker sweep for all, until it has not asked for a while.
--
-- KEYS: whose turn it is; the mark that tells one life of the data from the next.
-- ARGV: who asks, seconds, a mark to set if there is none.
-- Returns the mark, and what tells one start of the server from the next; nothing if it is another one's turn.
local whose = redis.call('GET', KEYS[1])
if whose and whose ~= ARGV[1] then return false end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local mark = redis.call('GET', KEYS[2])
if not mark then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
end
return mark .. (string.match(redis.call('INFO', 'server'), 'run_id:%w+') or '')
