/** An order that cannot be carried out, with what would do. */
export class FleetError extends Error {
  override name = 'FleetError';
}
