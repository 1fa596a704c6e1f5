-- Tell what is known of ids.
--
-- KEYS: the queue. ARGV: ids.
-- Returns for each id: its entry, the worker that holds it, its lease, when it is due, each empty if there is none.
local queue = KEYS[1]
local found = {}
for _, id in ipairs(ARGV) do
  local entry = redis.call('HGET', queue .. ':m', id)
  local worker, lease, due
  if entry then
    local _, _, _, priority = read(entry)
    due = redis.call('ZSCORE', queue .. ':r:' .. priority, id)
    if not due then worker, lease = holder(queue, id) end
  end
  found[#found + 1] = entry or ''
  found[#found + 1] = worker or ''
  found[#found + 1] = lease or ''
  found[#found + 1] = due or ''
end
return found
