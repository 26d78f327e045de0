-- What wrk sends: wrk -s load.lua URL -- KIND PATH_PREFIX BYTES RING
-- put: PUTs to ever new names: PATH_PREFIX, the thread, a counter; RING > 0 starts the counter again
-- after so many. Each body starts with its own path, so that a file with another's bytes is found out.
-- tus: the same as POSTs that create an upload with its body, of the tus protocol.
-- get: GETs PATH_PREFIX again and again. json: POSTs the same JSON to PATH_PREFIX again and again.
-- `done` prints one line of JSON; whatever else wrk prints may be ignored.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  kind = arguments[1]
  prefix = arguments[2]
  size = tonumber(arguments[3])
  ring = tonumber(arguments[4])
  count = 0
  filler = string.rep("0123456789abcdef", math.ceil(size / 16))
  if kind == "get" then
    fixed = wrk.format("GET", prefix)
  elseif kind == "json" then
    wrk.headers["Content-Type"] = "application/json"
    local body = '{"text": "' .. filler:sub(1, size - 12) .. '"}'
    fixed = wrk.format("POST", prefix, nil, body)
  elseif kind == "tus" then
    folder, names = prefix:match("^(.*)/([^/]*)$")
    wrk.headers["Tus-Resumable"] = "1.0.0"
    wrk.headers["Content-Type"] = "application/offset+octet-stream"
    wrk.headers["Upload-Length"] = tostring(size)
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
  local name = number .. "-" .. count
  local head = prefix .. name .. "\n"
  local body = head .. filler:sub(#head + 1)
  if kind == "tus" then
    wrk.headers["X-Name"] = names .. name
    return wrk.format("POST", folder, nil, body)
  end
  return wrk.format("PUT", prefix .. name, nil, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "bad_status": %d, "broken": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
