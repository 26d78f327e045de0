-- What wrk sends: wrk -s load.lua URL -- PATH_PREFIX BYTES RING
-- PUTs to ever new names: PATH_PREFIX, the thread, a counter; RING > 0 starts the counter again after
-- so many. Each body starts with its own path, so that a file with another's bytes is found out.
-- BYTES 0 GETs PATH_PREFIX again and again.
-- RING < 0 POSTs the same JSON to PATH_PREFIX again and again.
-- `done` prints one line of JSON; whatever else wrk prints may be ignored.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  prefix = arguments[1]
  size = tonumber(arguments[2])
  ring = tonumber(arguments[3])
  count = 0
  filler = string.rep("0123456789abcdef", math.ceil(size / 16))
  if size == 0 then
    fixed = wrk.format("GET", prefix)
  elseif ring < 0 then
    wrk.headers["Content-Type"] = "application/json"
    local body = '{"text": "' .. filler:sub(1, size - 12) .. '"}'
    fixed = wrk.format("POST", prefix, nil, body)
  end
end

function request()
  if fixed then
    return fixed
  end
  count = count + 1
  if ring > 0 and count > ring then
    count = 1
  end
  local path = prefix .. number .. "-" .. count
  local head = path .. "\n"
  return wrk.format("PUT", path, nil, head .. filler:sub(#head + 1))
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "bad_status": %d, "broken": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
