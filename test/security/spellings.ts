/** What the lenient server has (lenient.mjs), and how its names may be written. */

export const TOOLS = ['get_public', 'get_secret', 'delete_all', 'überprüfen', 'a/b', '100%', 'constructor'];
export const PROMPTS = ['sum_up', 'sum_up_secret'];
export const RESOURCES = ['file:///pub/a.txt', 'file:///secret/key', 'note://one'];
export const TEMPLATES = ['file:///pub/{name}', 'file:///secret/{name}'];

/** JSON texts of a name, its own first. */
export function jsonSpellings(name: string): string[] {
  const escaped = [...name]
    .map(letter => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
  const json = JSON.stringify(name);
  return [
    ...spellings(name).map(text => JSON.stringify(text)),
    `"${escaped}"`,
    `[${json}]`,
    `[[${json}],"get_public"]`,
    `{"name":${json}}`,
    '7',
    'null',
    'true',
  ];
}

/** Texts that a lenient server may take for a name, its own first. */
export function spellings(name: string): string[] {
  const wide = name.replace(/[a-z]/g, letter => String.fromCharCode(letter.charCodeAt(0) + 0xfee0));
  return [
    name,
    name.toUpperCase(),
    name.replace(/[a-z]/, letter => letter.toUpperCase()),
    name.normalize('NFD'),
    wide,
    name.replace('s', 'ſ'),
    name.replace('k', 'K'),
    `${name} `,
    ` ${name}`,
    `${name}\t`,
    `${name}\u00a0`,
    `\u3000${name}`,
    name.replace(/[a-z](?=[^a-z]*$)/, letter => `%${letter.charCodeAt(0).toString(16)}`),
    name.replace(/[a-z](?=[^a-z]*$)/, letter => `%${letter.toUpperCase().charCodeAt(0).toString(16)}`),
    `${name}?x`,
    `${name}#x`,
    name.replace(/\/(?=[^/]*$)/, '//'),
    name.replace(/\/(?=[^/]*$)/, '/./'),
  ];
}

/** The same as segments of a path, and some that only a path has. */
export function pathSpellings(name: string): string[] {
  const all = [...Buffer.from(name)].map(byte => `%${byte.toString(16).padStart(2, '0')}`).join('');
  return [
    ...spellings(name).map(encodeURIComponent),
    all,
    all.toUpperCase(),
    encodeURIComponent(all),
    `${all}%20`,
    `${all}%00`,
  ];
}
