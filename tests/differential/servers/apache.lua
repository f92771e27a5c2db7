-- What Apache runs: the answer says the request back, and the body is noted for the log as it is read.

function handle(r)
  r.headers_out["X-Echo"] = (r.headers_in["X-Request-Id"] or "-") .. " " .. r.method .. " " .. r.unparsed_uri
  r.content_type = "text/plain"
  r:write("ok\n")
  return 0
end

local function hexadecimal(text)
  return (text:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

function body(r)
  local pieces = {}
  coroutine.yield()
  while bucket do
    pieces[#pieces + 1] = hexadecimal(bucket)
    r.notes["body"] = table.concat(pieces)
    coroutine.yield(bucket)
  end
end
