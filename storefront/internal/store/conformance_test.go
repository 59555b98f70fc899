package store_test

import (
	"testing"

	"github.com/sallyport/sallyport/storefront/internal/store"
	"github.com/sallyport/sallyport/storefront/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) storetest.Store {
		db, err := store.Open(store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
}
