-- What lighttpd runs: as apache.lua.

local r = lighty.r
if not r.req_body.collect then
  return 0
end
-- What comes in one piece with the head is given with the head.
local length = r.req_body.len
local body = length > 0 and r.req_body.get:sub(-length) or ""
local target = r.req_attr["request.orig-uri"]
r.req_env["body"] = (body:gsub(".", function(c) return string.format("%02x", c:byte()) end))
r.resp_header["X-Echo"] = (r.req_header["x-request-id"] or "-") .. " " .. r.req_attr["request.method"] .. " " .. target
r.resp_body.set("ok\n")
return 200
