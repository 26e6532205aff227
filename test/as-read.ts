/** Bytes as a socket brings them: in memory that they share with nobody. */
export function asRead(text: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  bytes.write(text);
  return bytes;
}
