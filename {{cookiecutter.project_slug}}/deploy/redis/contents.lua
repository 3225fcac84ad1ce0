-- Say what a Redis of the application holds: redis-cli --eval contents.lua
local function each(kind, pattern, count)
  local total, cursor = 0, '0'
  repeat
    local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000, 'TYPE', kind)
    cursor = found[1]
    for _, key in ipairs(found[2]) do total = total + count(key) end
  until cursor == '0'
  return total
end

-- A queue is a list of messages; other lists are not counted.
local waiting = each('list', '*', function(key)
  local is_queue = string.find(redis.call('LINDEX', key, 0), '"delivery_info"', 1, true)
  return is_queue and redis.call('LLEN', key) or 0
end)
-- Those for later stand in a set of their own.
waiting = waiting + each('zset', '*.delayed', function(key) return redis.call('ZCARD', key) end)
local held = each('hash', '*unacked', function(key) return redis.call('HLEN', key) end)
return redis.call('DBSIZE') .. ' keys, ' .. waiting .. ' waiting tasks, ' .. held .. ' at work'
