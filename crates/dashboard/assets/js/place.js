// Which backend the page's address names: `#/pools/POOL/backends/NAME`. Behind the `#` it can be sent to a colleague,
// works under any path that the page is served at, and asks nothing of the server. Pure.

/** `{pool, backend}`, or `null` for the overview. */
export function placeOf(hash) {
  const found = /^#\/pools\/([^/]+)\/backends\/([^/]+)$/.exec(hash);
  if (!found) return null;
  try {
    return { pool: decodeURIComponent(found[1]), backend: decodeURIComponent(found[2]) };
  } catch {
    // Cut or mangled on its way: a half escape is no name.
    return null;
  }
}

export function addressOf(pool, backend) {
  return `#/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
}

/** Not the empty one: that would scroll to the top. */
export const OVERVIEW = '#/';
