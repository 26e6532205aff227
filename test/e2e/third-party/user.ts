import assert from 'node:assert/strict';
import type { Caller } from './services.ts';

/** Whom the servers ask: answers every form by the names of its fields, and remembers what was asked. */
export interface User {
  asked: string[];
  answer(params: { message: string; requestedSchema?: unknown }): Answer;
}

type Answer = { action: 'accept'; content: Record<string, string> } | { action: 'decline' };

const FACTS: Record<string, string> = {
  name: 'Ada',
  color: 'green',
  username: 'ada',
  email: 'ada@example.com',
};

/** @param action what the user does with every form */
export function createUser(action: 'accept' | 'decline' = 'accept'): User {
  const asked: string[] = [];
  return {
    asked,
    answer({ message, requestedSchema }) {
      asked.push(message);
      if (action === 'decline') return { action };
      const fields = Object.keys((requestedSchema as { properties: object }).properties);
      return { action, content: Object.fromEntries(fields.map(field => [field, FACTS[field] ?? '?'])) };
    },
  };
}

/**
 * Calls tools that ask the user while they run, one of them twice.
 * @param connect a client whose elicitation handler is this user
 * @throws AssertionError when a question or an answer got lost on its way
 */
export async function checkElicitation(connect: (user: User) => Promise<Omit<Caller, 'listTools'>>) {
  const willing = createUser();
  const client = await connect(willing);
  const one = await client.callTool('test_elicitation', { message: 'Who are you?' });
  assert.deepEqual(
    one.content,
    completed('action=accept, content={"username":"ada","email":"ada@example.com"}'),
  );
  const two = await client.callTool('test_input_required_result_multi_round', {});
  assert.deepEqual(two.content, [{ type: 'text', text: 'Ada likes green' }]);
  assert.deepEqual(willing.asked, [
    'Who are you?',
    'Step 1: What is your name?',
    'Step 2: What is your favorite color?',
  ]);
  const unwilling = await connect(createUser('decline'));
  const none = await unwilling.callTool('test_elicitation', { message: 'Who are you?' });
  assert.deepEqual(none.content, completed('action=decline, content=undefined'));
}

function completed(text: string) {
  return [{ type: 'text', text: `Elicitation completed: ${text}` }];
}
