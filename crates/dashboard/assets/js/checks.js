// Reads the last checks of the one backend that is looked at: one question at a time, the newest answer wins. Asking
// changes nothing at the load balancer.

/** The dashboard itself gives the load balancer 8 s (connect, head, body). */
const TIMEOUT_MS = 10000;

/**
 * `onNews({place, checks, problem})` is called with each answer: `checks` as the admin API gives them, or `null` with
 * the problem in words.
 */
export function checkReader(onNews) {
  let asking = null;

  async function read(place) {
    const question = { place };
    asking = question;
    const answer = await ask(place);
    // Somebody else is looked at by now.
    if (asking !== question) return;
    asking = null;
    onNews({ place, ...answer });
  }

  return {
    /** Asks for the checks of `place`, unless that is being done. */
    want(place) {
      if (asking?.place !== place) read(place);
    },
    /** What is still to come is for nobody. */
    forget() {
      asking = null;
    },
  };
}

async function ask({ pool, backend }) {
  const url = `api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}/checks`;
  let response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    return { checks: null, problem: error.name === 'TimeoutError' ? 'no answer within 10 s' : 'the dashboard does not answer' };
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && Array.isArray(answer?.results)) return { checks: answer, problem: null };
  return { checks: null, problem: answer?.detail ?? `the dashboard answered ${response.status}` };
}
