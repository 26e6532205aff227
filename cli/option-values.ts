import { plain } from './table.ts';
import { UsageError } from './usage-error.ts';

/** Readers of options' values (`.option(flags, text, reader)`). Each throws UsageError that names the option. */

/** An http(s) URL, without a slash at its end; `http://` may be left out. */
export function readUrl(option: string): (text: string) => string {
  return text => {
    const url = URL.parse(text.includes('://') ? text : `http://${text}`);
    if (!url || !/^https?:$/.test(url.protocol))
      throw new UsageError(`${option}: "${plain(text)}" is no http(s) URL`);
    return url.href.replace(/\/+$/, '');
  };
}

/** Seconds above 0. */
export function readSeconds(option: string, most: number): (text: string) => number {
  return text => {
    const seconds = Number(text);
    if (!(seconds > 0 && seconds <= most))
      throw new UsageError(`${option}: "${plain(text)}" is no time in seconds up to ${most}`);
    return seconds;
  };
}

/** A share from 0 to 100. */
export function readPercent(option: string): (text: string) => number {
  return text => {
    const percent = Number(text);
    if (text.trim() === '' || !(percent >= 0 && percent <= 100))
      throw new UsageError(`${option}: "${plain(text)}" is no share from 0 to 100`);
    return percent;
  };
}
