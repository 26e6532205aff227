import type { ErrorObject } from 'ajv';
import type { ArgumentFault } from '../../mesh/errors.ts';

const FAULTS_MAX = 20;
/** Names of members are the caller's, and as long as it likes. */
const TEXT_MAX = 300;
const ALLOWED_MAX = 20;

/** Ajv's errors as what the caller can mend, no more than a person reads. */
export function toFaults(errors: readonly ErrorObject[]): ArgumentFault[] {
  return errors.slice(0, FAULTS_MAX).map(error => ({
    pointer: cut(pointerOf(error)),
    detail: cut(describe(error)),
  }));
}

/** To the member itself, where Ajv points to the object that lacks it or has it. */
function pointerOf({ instancePath, params }: ErrorObject): string {
  const { missingProperty, additionalProperty, unevaluatedProperty, propertyName } = params;
  const member = missingProperty ?? additionalProperty ?? unevaluatedProperty ?? propertyName;
  if (typeof member !== 'string') return instancePath;
  return `${instancePath}/${member.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

function describe({ keyword, params, message = 'does not fit' }: ErrorObject): string {
  const { allowedValues, allowedValue, missingProperty } = params;
  if (typeof missingProperty === 'string') return 'is missing';
  if (keyword === 'additionalProperties' || keyword === 'unevaluatedProperties') return 'is not allowed here';
  if (keyword === 'const') return `must be ${JSON.stringify(allowedValue)}`;
  if (keyword !== 'enum' || !Array.isArray(allowedValues)) return message;
  const shown = allowedValues.slice(0, ALLOWED_MAX).map(value => JSON.stringify(value));
  return `must be one of ${shown.join(', ')}${allowedValues.length > ALLOWED_MAX ? ', …' : ''}`;
}

function cut(text: string): string {
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
}
