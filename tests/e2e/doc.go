// Package e2e is the tests that attack, break and use a whole Sallyport: real processes, a real SoftHSM token, real TLS, nothing
// replaced. It holds no code but tests; README.md says what each of them claims.
package e2e
