import leven from 'leven';

const SUGGESTION_DISTANCE = 3;

/** `; did you mean "…"?` for the nearest known word, or nothing when none is near. */
export function suggestion(word: string, known: readonly string[]): string {
  const nearest = known.toSorted((a, b) => leven(word, a) - leven(word, b))[0];
  if (nearest === undefined) return '';
  const distance = leven(word, nearest);
  // Short words are within the distance of anything: they have to have a letter in common.
  const foreign = distance >= Math.max(word.length, nearest.length);
  return distance > SUGGESTION_DISTANCE || foreign ? '' : `; did you mean "${nearest}"?`;
}
