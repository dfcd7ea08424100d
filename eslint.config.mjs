import js from '@eslint/js';
import tseslint from 'typescript-eslint';

const unused = { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'none' };

export default tseslint.config(
  { ignores: ['node_modules', 'dist', '.build', '.cache', 'out', 'runs', 'models'] },
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', unused],
      '@typescript-eslint/no-explicit-any': 'off', // heterogeneous op tables are typed where they are used
      '@typescript-eslint/no-non-null-assertion': 'off',
      'no-control-regex': 'off',
      'preserve-caught-error': 'off', // messages here are made for the user, with the reason in them
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error',
      'prefer-const': ['error', { destructuring: 'all' }],
    },
  },
  {
    files: ['**/*.{js,mjs}'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
        performance: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        globalThis: 'readonly',
      },
    },
  },
  { files: ['**/*.ts'], rules: { 'no-undef': 'off' } }, // TypeScript knows better
);
