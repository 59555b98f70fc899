package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/vault"
)

// token is a pool of token workers in the words of the vault.
type token struct{ pool *pkcs11.Pool }

func (t token) Import(ctx context.Context, key vault.KeyID, path string, wrapped []byte) error {
	return translate(t.pool.Import(ctx, pkcs11.KeyID(key), path, wrapped))
}

func (t token) Derive(ctx context.Context, uses []vault.Use) []vault.Derived {
	requests := make([]pkcs11.DeriveRequest, len(uses))
	for i := range uses {
		requests[i] = pkcs11.DeriveRequest{Key: pkcs11.KeyID(uses[i].Key), Point: uses[i].Point}
	}
	results := t.pool.Derive(ctx, requests)
	out := make([]vault.Derived, len(results))
	for i := range results {
		out[i] = vault.Derived{X: results[i].X, Err: translate(results[i].Err)}
		clear(results[i].X[:])
	}
	return out
}

func (t token) Destroy(ctx context.Context, key vault.KeyID) error {
	err := t.pool.Destroy(ctx, pkcs11.KeyID(key))
	if errors.Is(err, pkcs11.ErrKeyMissing) {
		return nil
	}
	return err
}

func (t token) Keys(ctx context.Context) ([]vault.KeyID, error) {
	held, err := t.pool.Keys(ctx)
	out := make([]vault.KeyID, len(held))
	for i := range held {
		out[i] = vault.KeyID(held[i])
	}
	return out, err
}

// translate adds the vault's sentinel to an error that it tells apart.
func translate(err error) error {
	switch {
	case errors.Is(err, pkcs11.ErrKeyMissing):
		return fmt.Errorf("%w: %w", vault.ErrKeyMissing, err)
	case errors.Is(err, pkcs11.ErrKeyExists):
		return fmt.Errorf("%w: %w", vault.ErrKeyExists, err)
	}
	return err
}
