import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Secret, secretsOfArgument, secretsOfNamed } from '../../../cli/import/secrets.ts';

/** The text without its secrets. */
function masked(text: string, secrets: readonly Secret[]): string {
  return secrets
    .toReversed()
    .reduce((rest, { start, end }) => `${rest.slice(0, start)}*${rest.slice(end)}`, text);
}

const variable = (name: string, value: string) => masked(value, secretsOfNamed(name, value));
const argument = (text: string, flag?: string) => masked(text, secretsOfArgument(text, flag));

describe('a secret', () => {
  test('is found by the name of a variable', () => {
    const names =
      'OPENAI_API_KEY API_KEY apiKey GITHUB_TOKEN githubToken GH_PAT CLIENT_SECRET AWS_SECRET_ACCESS_KEY DB_PASSWORD PGPASSWORD_PASS SENTRY_DSN SUPABASE_SERVICE_ROLE_KEY X-Api-Key Authorization SESSION_COOKIE AUTH_HEADER SLACK_WEBHOOK_URL';
    for (const name of names.split(' ')) assert.equal(variable(name, 'plain text'), '*', name);
    assert.equal(variable('AUTHORIZATION', 'Bearer abc'), 'Bearer *');
  });

  test('is found by its shape, and what is round it stays', () => {
    const cases = [
      [
        'postgresql://user:p@ss:w0rd@db.example:5432/app?sslmode=require',
        'postgresql://user:*@db.example:5432/app?sslmode=require',
      ],
      ['redis://:hunter2@cache:6379', 'redis://:*@cache:6379'],
      ['https://x.example/mcp?api_key=abcdef&v=1#top', 'https://x.example/mcp?api_key=*&v=1#top'],
      ['Server=db;User Id=sa;Password=abc123;Encrypt=true', 'Server=db;User Id=sa;Password=*;Encrypt=true'],
      [
        '{"Authorization": "Bearer ntn_0123456789abcdef", "Notion-Version": "2022-06-28"}',
        '{"Authorization": "Bearer *", "Notion-Version": "2022-06-28"}',
      ],
      ['{"apiKey":"abc123","name":"x"}', '{"apiKey":"*","name":"x"}'],
      ['exec srv --token=abc123 --port=1', 'exec srv --token=* --port=1'],
      ['token ghp_0123456789abcdef0123 here', 'token * here'],
      ['9f8e7d6c5b4a39281706f5e4d3c2b1a0', '*'],
    ];
    for (const [text = '', want] of cases) assert.equal(variable('X', text), want);
  });

  test('is found in arguments, by the flag before or in them', () => {
    assert.equal(argument('abc', '--api-key'), '*');
    assert.equal(argument('abc', '-token'), '*');
    assert.equal(argument('--api-key=abc'), '--api-key=*');
    assert.equal(argument('API_KEY=abc'), 'API_KEY=*');
    assert.equal(argument('Authorization: Bearer abc'), 'Authorization: Bearer *');
    assert.equal(argument('X-Api-Key:abc'), 'X-Api-Key:*');
    assert.equal(argument('--verbose', '--api-key'), '--verbose');
  });
});

describe('what is no secret', () => {
  test('stays', () => {
    const variables = {
      MAX_TOKENS: '4096',
      TOKEN_LIMIT: '100000',
      TOKENIZERS_PARALLELISM: 'false',
      API_KEY_FILE: '/run/secrets/key',
      AUTH_TYPE: 'oauth',
      KEYBOARD: 'de',
      AUTHOR: 'Ada',
      MONKEY: 'see',
      API_TOKEN: '${REAL_TOKEN}',
      SECRET: '',
      USE_TOKEN: 'true',
      ANTHROPIC_MODEL: 'claude-sonnet-4-20250514',
      PROJECT_ID: '9f8e7d6c5b4a39281706f5e4d3c2b1a0',
      PATH: '/usr/local/bin:/usr/bin',
      URL: 'https://example.com:8080/a@b?page=2',
      SENTENCE: 'the quick brown fox',
      PACKAGE: '@modelcontextprotocol/server-filesystem@2026.8.31',
    };
    for (const [name, value] of Object.entries(variables)) assert.equal(variable(name, value), value, name);
    for (const text of [
      '-y',
      '@scope/pkg@1.2.3',
      'https://x.example/mcp',
      'C:\\keys',
      '/etc/key',
      'server.js',
      '--key-file=/x',
    ])
      assert.equal(argument(text), text);
  });
});
