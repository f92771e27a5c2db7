// What an operator asks for. The dashboard passes it on with the token, which this page never sees.

/** The dashboard gives the load balancer 8 s (connect, head, body); then a person should hear something. */
const TIMEOUT_MS = 10000;

/** Resolves to `{ok: true, backend}` or `{ok: false, message}`; never rejects. */
export async function changeState(pool, backend, state) {
  const url = `api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}/state`;
  let response;
  try {
    response = await fetch(url, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ state }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    const late = error.name === 'TimeoutError';
    return { ok: false, message: late ? 'no answer within 10 s; it may still happen' : 'the dashboard does not answer' };
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer?.name) return { ok: true, backend: answer };
  return { ok: false, message: answer?.detail ?? `the dashboard answered ${response.status}` };
}
