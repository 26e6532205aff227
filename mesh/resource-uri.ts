/** Decoding that has not come to an end by then is no honest spelling. */
const DECODINGS_MAX = 3;
/** `.` and `..` as path segments, for servers on any system; `;` ends a segment for some of them. */
const DOT_SEGMENT = /(?:^|[/\\:])\.\.?(?:$|[/\\?#;])/;
/** A URL parser drops tabs and line ends (WHATWG URL §4.4), so that `.<tab>.` becomes `..`. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to find
const CONTROL = /[\x00-\x1f\x7f]/;
const ESCAPE = /%[0-9a-f]{2}/i;
const SCHEME = /^[a-z][a-z0-9+.-]*:\/\//i;

/**
 * The ways to write a resource's URI that its server may take for the same: as it is, percent-decoded, normalised
 * (RFC 3986 §6.2), without doubled slashes, query and fragment. Undefined when a path in it climbs (`..`, in any
 * spelling), since then its beginning says nothing of where it leads.
 */
export function spellingsOf(uri: string): string[] | undefined {
  const spellings = new Set<string>();
  let text = uri;
  for (let round = 0; ; round += 1) {
    if (CONTROL.test(text) || DOT_SEGMENT.test(text)) return undefined;
    for (const spelling of [text, text.normalize('NFC'), ...normalForms(text)]) {
      spellings.add(spelling);
      for (const form of bareForms(spelling)) spellings.add(form);
    }
    const decoded = decode(text);
    if (decoded === text) return [...spellings];
    if (round === DECODINGS_MAX) return undefined;
    text = decoded;
  }
}

function normalForms(text: string): string[] {
  const url = URL.parse(text);
  if (!url) return [];
  // Of a file's URL many servers take the path and ignore the host.
  return url.protocol === 'file:' ? [url.href, `file://${url.pathname}`] : [url.href];
}

/**
 * One slash between segments, none at the end, nothing behind the path; where that begins with the scheme, one slash or
 * none, since a server that takes the segments alone knows no host from a first one.
 */
function bareForms(uri: string): string[] {
  const [scheme = ''] = SCHEME.exec(uri) ?? [];
  const end = uri.search(/[?#]/);
  const path = uri
    .slice(scheme.length, end < 0 ? undefined : end)
    .replace(/[/\\]+/g, '/')
    .replace(/^\/|\/$/g, '');
  return [`${scheme}${path}`, `${scheme}/${path}`];
}

function decode(text: string): string {
  if (!ESCAPE.test(text)) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    // Not UTF-8, or a stray `%`: the separators and dots are ASCII.
    return text.replace(/%([0-7][0-9a-f])/gi, (_all, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
  }
}
