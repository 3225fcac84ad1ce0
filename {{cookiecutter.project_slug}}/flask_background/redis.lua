-- Whatever the engine does in Redis that must happen as a whole or not at all.
--
-- Called with ARGV[1], the name of a command below. Python passes the keys and the values and
-- decides nothing; base/scripts.py is the way in.
--
-- The data. Each key begins with the application's name and a colon (CELERY_KEY_PREFIX).
--
--   key                            what it holds                                  lives
--   <queue>                        list: messages that wait                       until they are taken
--   <queue>\6\22<3, 6 or 9>        the same, of a lower priority                  until they are taken
--   <queue>.delayed                sorted set: messages for later, each after     until they are due
--                                  the name of its list and a newline
--   <queue>.wake                   list: calls to workers that wait               32 entries
--   unacked                        hash: tag -> [message, exchange, queue],       until acknowledged
--                                  what workers hold
--   unacked_index                  sorted set: tag -> when its lease was renewed  the same
--   celery-task-meta-<id>          string: a task's record, as JSON;              CELERY_RESULT_EXPIRES,
--                                  its changes are published under the same name  a day until it has ended
--   background:workers             hash: worker -> its last sign of life          an hour of silence
--   background:cancelled:<id>      string: the task shall not run                 a day
--   background:deliveries:<id>     string: how often a task was delivered         a day
--   background:failed              hash: id -> a task that failed or was given    as the two below
--                                  up, with what it takes to run it again
--   background:failures            sorted set: ids that failed, by time           the last 50 of a day
--   background:dead:order          sorted set: ids that were given up, by time    the last 1000
--   background:refused             sorted set: messages without a signature       the last 100
--   background:scheduler:lease     string: who sends what is due                  20 seconds
--   background:scheduler:runs      hash: entry -> its last run                    as the schedule
--   background:lock:<function>     string: a function that must not overlap       30 seconds
--   background:done:<function>:…   string: the result of work done once           a day
--   background:local-cluster       string: who starts workers for development     seconds
--   background:probe               string: whether Redis takes a write            a minute
--   recent                         sorted set: ids of the latest tasks, by time   100 entries
--   counters                       hash: how tasks ended, how long they took,     for good
--                                  and how many messages were refused
--
-- Kombu keeps its own lists of queues and of who answers commands (_kombu.binding.*), and Celery
-- its groups and chords (celery-taskset-meta-*, chord-unlock-*).
--
-- All times are those of Redis' clock: the clocks of machines differ, and may be set.
--
-- Redis lets a script write when its memory is full if the script's first write needs no memory.
-- So each command that workers need to go on begins with such a write.
-- https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags

local commands = {}

local function now()
  local time = redis.call('TIME')
  return time[1] .. '.' .. string.format('%06d', time[2])
end

-- Put a message into its list and wake a worker, or keep it for later.
-- KEYS: its list, the list to wake, the messages for later.
local function put(message, delay, side)
  if tonumber(delay) > 0 then
    redis.call('ZADD', KEYS[3], now() + delay, KEYS[1] .. '\n' .. message)
    return
  end
  redis.call(side, KEYS[1], message)
  redis.call('LPUSH', KEYS[2], 1)
  redis.call('LTRIM', KEYS[2], 0, 31)
end

-- Remember a task among the latest; the time of the first mention stays.
local function remember(recent, id)
  redis.call('ZADD', recent, 'NX', now(), id)
  redis.call('ZREMRANGEBYRANK', recent, 0, -101)
end

local function read_record(key)
  local known, record = pcall(cjson.decode, redis.call('GET', key) or '')
  return known and type(record) == 'table' and record or {}
end

-- Write a task's record, never over a success, and tell who waits for it.
local function write_record(key, record, lifetime)
  if read_record(key).status == 'SUCCESS' then return end
  if tonumber(lifetime) > 0 then
    redis.call('SET', key, record, 'EX', lifetime)
  else
    redis.call('SET', key, record)
  end
  redis.call('PUBLISH', key, record)
end

-- Send a message, and make its task known: an id without a record was never issued.
-- KEYS: its list, the list to wake, the messages for later, recent, the task's record.
-- ARGV: message, delay (seconds), the task's id or nothing, its record or nothing, the record's life.
function commands.send()
  -- A task that is sent again by itself (a retry) has a record already.
  if ARGV[5] ~= '' then redis.call('SET', KEYS[5], ARGV[5], 'NX', 'EX', ARGV[6]) end
  put(ARGV[2], ARGV[3], 'LPUSH')
  if ARGV[4] ~= '' then remember(KEYS[4], ARGV[4]) end
end

-- Take back what was sent, with the same KEYS and ARGV, unless a worker has it.
function commands.withdraw()
  local gone = redis.call('LREM', KEYS[1], 1, ARGV[2])
  gone = gone + redis.call('ZREM', KEYS[3], KEYS[1] .. '\n' .. ARGV[2])
  if gone > 0 and read_record(KEYS[5]).status == 'PENDING' then redis.call('DEL', KEYS[5]) end
end

-- Move messages whose time has come into their lists.
local function move_due(delayed, wake)
  for _, item in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now(), 'LIMIT', 0, 10)) do
    local list, message = item:match('^(.-)\n(.*)$')
    redis.call('ZREM', delayed, item)
    redis.call('LPUSH', list, message)
    redis.call('LPUSH', wake, 1)
    redis.call('LTRIM', wake, 0, 31)
  end
end

-- Begin a task whose message was taken: it is looked up whether it was cancelled, a repeated
-- delivery is counted, and its record says who has it. Returns how it stands and the deliveries.
local function begin(message, queue, worker, pid, lifetime, prefix)
  local content = cjson.decode(message)
  local headers, delivery = content.headers, content.properties.delivery_info
  local id = headers.id
  if type(id) ~= 'string' then return '', 1 end
  if type(headers.eta) == 'string' and not delivery.due then return 'early', 1 end
  if redis.call('EXISTS', prefix .. 'background:cancelled:' .. id) == 1 then return 'cancelled', 1 end
  local deliveries = 1
  if delivery.redelivered == true then
    local counter = prefix .. 'background:deliveries:' .. id
    deliveries = redis.call('INCR', counter) + 1
    redis.call('EXPIRE', counter, 86400)
  end
  remember(prefix .. 'recent', id)
  if headers.ignore_result == false and tonumber(lifetime) > 0 then
    local name = type(headers.shadow) == 'string' and headers.shadow or headers.task
    write_record(prefix .. 'celery-task-meta-' .. id, cjson.encode({
      status = 'STARTED', task_id = id, name = name, worker = worker, queue = queue,
      started_at = tonumber(now()), result = {pid = tonumber(pid), hostname = worker},
    }), lifetime)
  end
  return 'begun', deliveries
end

-- Take a message, note who has it, and begin its task.
-- KEYS: unacked, unacked_index, the messages for later and the list to wake of each queue, then the
-- lists of all queues, for one priority after the other.
-- ARGV: tag, worker, its process id, the life of a record, the prefix of all keys, the queues.
-- Returns the list, the message, how its task stands, and how often it was delivered.
function commands.take()
  local tag, worker, pid, lifetime, prefix = unpack(ARGV, 2, 6)
  local queues = #ARGV - 6
  local before = 2 + 2 * queues
  for i = 3, before, 2 do move_due(KEYS[i], KEYS[i + 1]) end
  for i = before + 1, #KEYS do
    local message = redis.call('RPOP', KEYS[i])
    if message then
      local queue = ARGV[7 + (i - before - 1) % queues]
      -- The value is what Kombu stores: message, exchange (here the default one), routing key.
      redis.call('HSET', KEYS[1], tag, '[' .. message .. ',"",' .. cjson.encode(queue) .. ']')
      redis.call('ZADD', KEYS[2], now(), tag)
      local read, state, deliveries = pcall(begin, message, queue, worker, pid, lifetime, prefix)
      return {KEYS[i], message, read and state or '', read and deliveries or 1}
    end
  end
  for i = 4, before, 2 do redis.call('DEL', KEYS[i]) end
  return false
end

-- Renew the leases of messages. KEYS: unacked_index. ARGV: tags.
-- Returns the tags that are not there any more.
function commands.renew()
  local lost = {}
  redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
  for i = 2, #ARGV do
    if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
      redis.call('ZADD', KEYS[1], now(), ARGV[i])
    else
      lost[#lost + 1] = ARGV[i]
    end
  end
  return lost
end

-- Find messages whose lease has ended. KEYS: unacked_index. ARGV: lease (seconds), how many.
function commands.expired()
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now() - ARGV[2], 'LIMIT', 0, ARGV[3])
end

-- Put a message back into its list; its task waits again.
-- KEYS: its list, the list to wake, the messages for later, unacked, unacked_index, the task's record.
-- ARGV: tag, message, LPUSH or RPUSH, delay (seconds), lease (seconds; 0: whatever its age).
-- Returns whether it was there.
function commands.put_back()
  local lease = tonumber(ARGV[6])
  if lease > 0 then
    local since = redis.call('ZSCORE', KEYS[5], ARGV[2])
    if since and tonumber(since) > now() - lease then return 0 end
  end
  redis.call('ZREM', KEYS[5], ARGV[2])
  if redis.call('HDEL', KEYS[4], ARGV[2]) == 0 then return 0 end
  put(ARGV[3], ARGV[5], ARGV[4])
  local record = read_record(KEYS[6])
  if record.status == 'STARTED' or record.status == 'PROGRESS' then
    local waits = {status = 'PENDING', task_id = record.task_id, name = record.name}
    redis.call('SET', KEYS[6], cjson.encode(waits), 'KEEPTTL')
  end
  return 1
end

-- Store a task's record. When it has ended, count that and let go of its message.
-- KEYS: unacked, unacked_index, the record, counters. ARGV: the message's tag or nothing, the record
-- or nothing, its life (seconds; 0: for good), then counters to raise, the last by so many seconds.
function commands.store()
  redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('ZREM', KEYS[2], ARGV[2])
  if ARGV[3] ~= '' then write_record(KEYS[3], ARGV[3], ARGV[4]) end
  if #ARGV > 4 then
    redis.call('HINCRBY', KEYS[4], ARGV[5], 1)
    redis.call('HINCRBY', KEYS[4], ARGV[6], 1)
    redis.call('HINCRBYFLOAT', KEYS[4], ARGV[7], ARGV[8])
  end
end

-- Write a worker's sign of life. KEYS: background:workers, the marks of its tasks as cancelled.
-- ARGV: worker, what it says, the ids of these tasks. Returns the ids that are marked.
function commands.beat()
  redis.call('PERSIST', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[2], now() .. ' ' .. ARGV[3])
  local cancelled = {}
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then cancelled[#cancelled + 1] = ARGV[i + 2] end
  end
  return cancelled
end

-- Note a run of the schedule, if the lease is ours. KEYS: lease, background:scheduler:runs.
-- ARGV: token, entry, its record. Returns whether it was noted.
function commands.claim()
  if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  return 1
end

-- Keep a task that failed or was given up. A message that a worker holds is let go.
-- KEYS: background:failed, the sorted set of its kind, unacked, unacked_index.
-- ARGV: id, record, time, how many are kept, from which time on, the message's tag.
function commands.keep()
  redis.call('HDEL', KEYS[3], ARGV[7])
  redis.call('ZREM', KEYS[4], ARGV[7])
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
  local old = redis.call('ZRANGE', KEYS[2], 0, -1 - ARGV[5])
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[6])) do
    old[#old + 1] = id
  end
  for _, id in ipairs(old) do
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
  end
end

-- Take such a task out, and send its message again if there is one.
-- KEYS: background:failed, the sorted set of its kind, deliveries, list.
-- ARGV: id, message or nothing. Returns whether it was there.
function commands.release()
  redis.call('ZREM', KEYS[2], ARGV[2])
  if redis.call('HDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
  redis.call('DEL', KEYS[3])
  if ARGV[3] ~= '' then redis.call('LPUSH', KEYS[4], ARGV[3]) end
  return 1
end

return commands[ARGV[1]]()
