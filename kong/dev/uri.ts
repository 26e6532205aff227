const UNRESERVED = /[A-Za-z0-9\-._~]/;
const NEEDS_ESCAPE = /[^!#$&'()*+,/:;=?@[\]A-Za-z0-9\-_.~%]/g;

/** The path as kong.request.get_path gives it: unreserved escapes decoded, slashes merged, dot segments removed. */
export function normalizePath(path: string): string {
  const decoded = path.replace(/%([0-9A-Fa-f]{2})/g, (escaped, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16));
    return UNRESERVED.test(character) ? character : escaped.toUpperCase();
  });
  const segments: string[] = [];
  const parts = decoded.split('/').filter((part, i) => i === 0 || part !== '');
  for (const part of parts) {
    if (part !== '..' && part !== '.') segments.push(part);
    else if (part === '..' && segments.length > 1) segments.pop();
  }
  const last = parts.at(-1);
  const directory = decoded.endsWith('/') || last === '.' || last === '..';
  const normalized = segments.join('/');
  if (normalized === '') return '/';
  return directory && !normalized.endsWith('/') ? `${normalized}/` : normalized;
}

/** The path as kong.service.request.set_path sends it: what may not stand in a URI is escaped, the rest stays. */
export function escapePath(path: string): string {
  return path.replace(NEEDS_ESCAPE, character =>
    [...Buffer.from(character, 'latin1')]
      .map(byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join(''),
  );
}
