package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/catalogue"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

// A business's program reads fields of a customer with the profile that `sallyport biz init` made. It keeps the Reader open: a session with the vault and what was verified once serve all
// reads. While it is open no command can use the profile.
func ExampleReader_Read() {
	secret, err := profile.KeyFile("/etc/shop/sallyport.key")
	if err != nil {
		log.Fatal(err)
	}
	store, err := profile.Open("/var/lib/shop/sallyport", secret)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	reader, err := client.OpenReader(store, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()

	customer, err := reader.Find("CUST-1")
	if err != nil {
		log.Fatal(err)
	}
	values, err := reader.Read(context.Background(), client.Item{Owner: customer, Field: "phone.mobile"}, client.Item{Owner: customer, Field: "address.home"})
	if err != nil {
		log.Fatal(err) // policies.CodeUnavailable: nobody answers, try again; client.ErrUntrue: what came back was not used
	}
	for _, v := range values { // each has a value, or its own reason why not
		switch {
		case errors.Is(v.Err, policies.CodeRevoked), errors.Is(v.Err, policies.CodeGrantExpired), errors.Is(v.Err, policies.CodeNoGrant):
			fmt.Println(v.Field, "is not granted, or not any more: Reader.Ask asks for it")
		case v.Err != nil:
			fmt.Println(v.Field, v.Err)
		default:
			value, err := catalogue.Parse(v.Bytes)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(v.Field, value, "version", v.Version)
		}
	}
}
