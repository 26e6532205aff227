/** One event of an event stream (WHATWG HTML §9.2). */
export interface StreamEvent {
  event: string;
  data: string;
  /** The stream's last `id` so far. */
  id?: string;
}

const LINE_END = /\r\n|\n|\r/;

/**
 * The events of a stream as they come; comments (keep-alives) are passed over.
 * @throws Error when one event has more than `maxLength` characters, or the stream breaks
 */
export async function* readEvents(
  body: AsyncIterable<Uint8Array>,
  maxLength: number,
): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let event = '';
  let id: string | undefined;
  let data: string[] = [];
  let length = 0;
  for await (const chunk of body) {
    const text = rest + decoder.decode(chunk, { stream: true });
    // A line end may be cut in two.
    const whole = text.endsWith('\r') ? text.slice(0, -1) : text;
    const lines = whole.split(LINE_END);
    rest = (lines.pop() ?? '') + text.slice(whole.length);
    for (const line of lines) {
      length += line.length;
      if (line === '') {
        if (data.length > 0)
          yield {
            event: event || 'message',
            data: data.join('\n'),
            ...(id === undefined ? {} : { id }),
          };
        event = '';
        data = [];
        length = 0;
      }
      const [, field, value = ''] = /^(event|data|id)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (field === 'event') event = value;
      if (field === 'data') data.push(value);
      if (field === 'id') id = value;
    }
    if (length + rest.length > maxLength) throw new Error(`an event is longer than ${maxLength} characters`);
  }
}
