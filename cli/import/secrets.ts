/** What looks like a secret: by the name that it has, or by the shape of known tokens. A miss would be published. */

/** A part of a text that is a secret. */
export interface Secret {
  start: number;
  end: number;
  /** How it was found, for people. */
  why: string;
  /** What to call it when nothing else names it. */
  name: string;
}

const SECRET_WORDS =
  /(?:^|_)(?:api_?keys?|access_?keys?|keys?|tokens?|secrets?|passwords?|passwd|passphrase|pwd|pass|credentials?|creds|auth|authorization|bearer|cookies?|private|pat|dsn|connection_?string|webhook_?url)(?:_|$)/;
/** Names with such a word that hold no secret. */
const HARMLESS_NAMES =
  /(?:^|_)(?:max_tokens?|token_limit|token_count|num_tokens|tokenizers?(?:_\w+)?|(?:auth|token|key|secret|credentials?|private_key|password)_(?:type|mode|method|url|uri|endpoint|file|path|dir|id|name|names|prefix|scheme|provider|enabled|ttl|expiry|alias|length))$|^(?:public_key_path|keyboard\w*|ssh_auth_sock|ssl_\w+)$/;
const TOKEN_SHAPES: readonly RegExp[] = [
  /\bgh[pousr]_[A-Za-z0-9]{16,}/g,
  /\bgithub_pat_\w{20,}/g,
  /\bgl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat)-[\w-]{16,}/g,
  /\b(?:sk|pk|rk)[-_][A-Za-z0-9][\w-]{14,}/g,
  /\bxox[abeoprs]-[A-Za-z0-9-]{10,}/g,
  /\bxapp-[A-Za-z0-9-]{10,}/g,
  /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/g,
  /\bAIza[\w-]{30,}/g,
  /\bya29\.[\w-]{20,}/g,
  /\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?/g,
  /\b(?:npm|hf|mk|ntn|secret|lin_api|figd|pplx|tvly|fc|shpat|dop_v1|pul|r8|gsk|whsec|re|exa|ctx7sk)[_-][A-Za-z0-9_-]{20,}/g,
  /\bSG\.[\w-]{16,}\.[\w-]{16,}/g,
  /\bAQ\.[\w-]{20,}/g,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*/g,
];
const URL_PASSWORD = /\b[a-z][a-z0-9+.-]{0,20}:\/\/[^\s/:@]*:([^\s/]+)@/gi;
const BEARER = /\b(?:Bearer|Basic)\s+([\w.~+/=-]{8,})/gi;
/** In queries of URLs, connection strings and command lines; in JSON. */
const ASSIGNMENTS: readonly RegExp[] = [
  /(?:^|[?&;\s])(?:--?)?([\w.-]+)=([^\s&#;"']+)/g,
  /"([\w.-]+)"\s*:\s*"([^"\\]+)"/g,
];
const SCHEME = /^(?:Bearer|Basic|Token|Bot|ApiKey)\s+/i;
const INLINE = /^(?:--?)?([A-Za-z][\w.-]*)(?:=|:\s+|:(?=\S*$)(?!\/\/))/;
/** Words, small numbers, and references that the server itself fills in. */
const HARMLESS_VALUES =
  /^(?:true|false|yes|no|on|off|none|null|\d{1,3}|bearer|basic|token|(?:(?:Bearer|Basic)\s+)?\$(?:\w+|\{[^{}]*\}))?$/i;
const RANDOM_LENGTH = 20;
const RANDOM_BITS = 3.2;

/** Whether a variable, flag or header of that name holds a secret. */
export function isSecretName(name: string): boolean {
  const words = name
    .replace(/^-+/, '')
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toLowerCase();
  return SECRET_WORDS.test(words) && !HARMLESS_NAMES.test(words);
}

/** Secrets in the value of something that has a name. */
export function secretsOfNamed(name: string, value: string): Secret[] {
  if (HARMLESS_VALUES.test(value)) return [];
  if (isSecretName(name)) return [whole(value, `${name} is a name of secrets`)];
  if (!/_?id$/i.test(name) && looksRandom(value)) return [whole(value, 'it looks like a key')];
  return secretsInText(value);
}

/** Secrets in an argument; `flag`: the argument before, when it is an option. */
export function secretsOfArgument(argument: string, flag: string | undefined): Secret[] {
  if (
    flag !== undefined &&
    isSecretName(flag) &&
    !argument.startsWith('-') &&
    !HARMLESS_VALUES.test(argument)
  )
    return [{ ...whole(argument, `${flag} is a name of secrets`), name: flag }];
  const [prefix = '', name = ''] = INLINE.exec(argument) ?? [];
  const value = argument.slice(prefix.length);
  if (prefix === '' || !isSecretName(name) || HARMLESS_VALUES.test(value)) return secretsInText(argument);
  const { start, end, why } = whole(value, `${name} is a name of secrets`);
  return [{ start: start + prefix.length, end: end + prefix.length, why, name }];
}

/** Secrets that show by their own shape. */
export function secretsInText(text: string): Secret[] {
  const found: Secret[] = [];
  for (const match of text.matchAll(URL_PASSWORD)) {
    const [all, password = ''] = match;
    const end = match.index + all.length - 1;
    found.push({ start: end - password.length, end, why: 'a password in a URL', name: 'PASSWORD' });
  }
  for (const match of ASSIGNMENTS.flatMap(form => [...text.matchAll(form)])) {
    const [all, name = '', value = ''] = match;
    const [scheme = ''] = SCHEME.exec(value) ?? [];
    const end = match.index + all.lastIndexOf(value) + value.length;
    if (isSecretName(name) && !HARMLESS_VALUES.test(value))
      found.push({
        start: end - value.length + scheme.length,
        end,
        why: `${name} is a name of secrets`,
        name,
      });
  }
  for (const match of text.matchAll(BEARER)) {
    const [all, token = ''] = match;
    const end = match.index + all.length;
    found.push({ start: end - token.length, end, why: 'it follows "Bearer"', name: 'TOKEN' });
  }
  for (const shape of TOKEN_SHAPES)
    for (const { 0: token, index } of text.matchAll(shape))
      found.push({ start: index, end: index + token.length, why: 'the shape of a token', name: 'TOKEN' });
  return withoutOverlaps(found);
}

function whole(value: string, why: string): Secret {
  const [scheme = ''] = SCHEME.exec(value) ?? [];
  return { start: scheme.length, end: value.length, why, name: '' };
}

/** Has a long word of letters and digits mixed, with no order in it (Shannon). */
function looksRandom(text: string): boolean {
  if (!/^[A-Za-z0-9+/_=-]+$/.test(text) || text.startsWith('/')) return false;
  const [value = ''] = text.split(/[-_/]/).toSorted((a, b) => b.length - a.length);
  if (value.length < RANDOM_LENGTH || !/\d/.test(value) || !/[A-Za-z]/.test(value)) return false;
  const counts = new Map<string, number>();
  for (const character of value) counts.set(character, (counts.get(character) ?? 0) + 1);
  const bits = [...counts.values()].reduce((sum, count) => {
    const share = count / value.length;
    return sum - share * Math.log2(share);
  }, 0);
  return bits >= RANDOM_BITS;
}

function withoutOverlaps(found: Secret[]): Secret[] {
  const kept: Secret[] = [];
  for (const secret of found.toSorted((a, b) => a.start - b.start || b.end - a.end))
    if (secret.start >= (kept.at(-1)?.end ?? 0)) kept.push(secret);
  return kept;
}
