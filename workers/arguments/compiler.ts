import type { Ajv, Options, ValidateFunction } from 'ajv';
import type { JsonObject } from '../../mesh/jsonrpc.ts';

export interface SchemaCompiler {
  /**
   * A function that checks values; with `all` it looks for every fault and not only the first.
   * @throws Error saying why the schema cannot be used
   */
  compile(schema: JsonObject, all: boolean): ValidateFunction;
}

type AjvClass = new (options: Options) => Ajv;

const DRAFT_2020 = 'https://json-schema.org/draft/2020-12/schema';
const DRAFT_07 = 'http://json-schema.org/draft-07/schema';

/** What the server itself is lenient about must not be refused before it. */
const OPTIONS: Options = {
  strict: false,
  logger: false,
  // Else `{}` has a "constructor".
  ownProperties: true,
  // Else 0.07 is no multiple of 0.01.
  multipleOfPrecision: 9,
  code: { regExp: Object.assign(readPattern, { code: 'new RegExp' }) },
};

/** Loads Ajv, which a worker that checks nothing does without. */
export async function loadSchemaCompiler(): Promise<SchemaCompiler> {
  const [{ Ajv }, { Ajv2020 }, formats] = await Promise.all([
    import('ajv'),
    import('ajv/dist/2020.js'),
    import('ajv-formats'),
  ]);
  const dialects = new Map([
    [DRAFT_2020, dialect(Ajv2020)],
    [DRAFT_07, dialect(Ajv)],
  ]);
  return {
    compile(schema, all) {
      const { $schema = DRAFT_2020 } = schema;
      const known = typeof $schema === 'string' ? dialects.get($schema.replace(/#$/, '')) : undefined;
      if (!known) throw new Error('"$schema" names neither draft 2020-12 nor draft-07');
      if (schema.$async !== undefined) throw new Error('"$async" is not for a tool to choose');
      known.requireValid(schema);
      // An Ajv for each schema: one that is shared keeps every schema it was given, and takes one's ids for another's.
      const ajv = new known.Dialect({ ...OPTIONS, validateSchema: false, allErrors: all });
      formats.default.default(ajv, { keywords: false });
      return ajv.compile(schema);
    },
  };
}

/** Its meta-schema takes 60 ms to compile, and is shared. */
function dialect(Dialect: AjvClass) {
  const meta = new Dialect(OPTIONS);
  return {
    Dialect,
    /** Code is generated from schemas: from valid ones only. */
    requireValid(schema: JsonObject): void {
      if (meta.validateSchema(schema) !== true) throw new Error(`no valid schema: ${meta.errorsText()}`);
    },
  };
}

/** JSON Schema says Unicode (2020-12 Core §6.4), servers often write what only passes without. */
function readPattern(pattern: string, flags: string): RegExp {
  try {
    return new RegExp(pattern, flags);
  } catch {
    return new RegExp(pattern);
  }
}
