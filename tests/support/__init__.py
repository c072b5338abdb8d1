"""What tests share: clients, the service, real stores and a fake one."""
